"""The names under which a program's states are a graph's inputs and outputs."""


def new_state(name: str) -> str:
    """The name of the output that holds a state's value after the call."""
    return f"{name}/new"
