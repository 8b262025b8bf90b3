"""Dead letters: looks at them, and puts them back without losing one. Usable without a daemon and as a library: nothing
here prints or reads arguments."""
