import jax

# Library code must broadcast and convert explicitly: users run with these flags.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
