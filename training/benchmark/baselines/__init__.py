"""What else one would try on the paper's ECG task: every method on the same points, with the same budget.

`points` holds what a method sees and what it answers; `classical`, `encoded`, `networks`, `gan` and `gan_ad` are the
methods, `methods` lists them; `experiment` runs what is missing, `page` writes it down.

PyOD (3.6) was tried and left out: its isolation forest and OCSVM are scikit-learn's, its Deep SVDD and its GANs keep no
loss on held-out points, and its ALAD takes one batch per "epoch"; so nothing in it could be shown to have converged.
"""

EPOCHS = 15  # of what is trained here
