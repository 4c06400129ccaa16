"""How hot the machine is: what its sensors and its system say."""
