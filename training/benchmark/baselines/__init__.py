"""What else one would try on the paper's ECG task: every method on the same points, with the same budget.

`points` holds what a method sees and what it answers; `classical`, `encoded`, `networks`, `gan` and `gan_ad` are the
methods, `methods` lists them; `experiment` runs what is missing, `page` writes it down.

PyOD (3.6) was tried and left out: `page` says why.
"""

EPOCHS = 15  # of what is trained here
