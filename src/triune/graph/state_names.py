"""The names of a graph's inputs and outputs that are the states of a program."""


def new_state(name: str) -> str:
    """The name of the output that is the state's value after a call."""
    return f"{name}/new"
