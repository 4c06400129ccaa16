"""Servables that are made of others: a graph of steps, each of which asks another servable."""
