"""What is here only because DeepMatch's programs import it. They find it where they look: `layers`, `inputs`, `utils`.

Each name's docstring says what is better. `left_behind` says it of names that are not here.
"""
