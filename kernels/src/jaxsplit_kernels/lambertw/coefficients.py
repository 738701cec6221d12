"""Coefficients of the Lambert W approximations, constant term first.

Written by ``kernels/scripts/fit_lambertw.py``, which also says what each one fits.
"""

# (1 + W0) / p in powers of p: Corless et al. 1996, (4.22)
ONE_PLUS_W0_SERIES = (
    1 / 1,
    -1 / 3,
    11 / 72,
    -43 / 540,
    769 / 17280,
    -221 / 8505,
    680863 / 43545600,
    -1963 / 204120,
    226287557 / 37623398400,
    -5776369 / 1515591000,
    169709463197 / 69528040243200,
)

# log(1 + v) / s in powers of s = sqrt(2 u): relative error 8.4e-09
BELOW_NUMERATOR = (
    0.9999999913684826,
    0.42814892156831574,
    0.07301075768542846,
    0.00343339341184824,
    2.581478379117379e-05,
)

# log(1 + v) / s in powers of s = sqrt(2 u): denominator
BELOW_DENOMINATOR = (
    1.0,
    0.5948153037046904,
    0.14437029545110242,
    0.014673550803137762,
    0.0004349767200989553,
    2.0093928949232804e-06,
)

# W0(z) / z in powers of p, -1/e <= z <= 20: relative error 5.4e-09
MIDDLE_NUMERATOR = (
    2.7182818432354905,
    1.828126122486941,
    0.3059770570854455,
    0.01158111298968039,
    2.3972665418450382e-05,
)

# W0(z) / z in powers of p, -1/e <= z <= 20: denominator
MIDDLE_DENOMINATOR = (
    1.0,
    1.6725303608118611,
    0.9517561436606634,
    0.21503398687687952,
    0.017371426866839828,
    0.00034079608180534053,
)

# log W0(e^x) in powers of x, 2.99 <= x <= 710: relative error 5.9e-08
LARGE_NUMERATOR = (
    -0.5535510354331347,
    0.29128623337485093,
    0.23756375697722276,
    0.026094625732472867,
    0.00048214872795047936,
    1.1030384687832563e-06,
)

# log W0(e^x) in powers of x, 2.99 <= x <= 710: denominator
LARGE_DENOMINATOR = (
    1.0,
    0.5685434051742448,
    0.12543875496009568,
    0.007442792179710157,
    9.112428089320818e-05,
    1.3807988937890748e-07,
)
