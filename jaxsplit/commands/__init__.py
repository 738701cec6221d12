"""What the command line does, a file per command, and what commands share.

`quickstart`, `fine_tune` (`jaxsplit run`), `reproduce`, `export` and `describe_data` are commands;
each takes a dataclass of options that the command line is made from, and can be called from
Python as well. `learning_options` and `comparison` are what runs of several policies share;
`watch`, `progress` and `report` are what a user sees. Sweeps have a folder of their own.
"""
