"""A lab as a whole: its folder and lock, its states, the steps between them, and the checks of `xenlab doctor`."""
