"""The names of the graph inputs and outputs that hold a program's states."""


def new_state(name: str) -> str:
    """The name of the output that holds a state's value after the call."""
    return f"{name}/new"
