"""Servables that call others: a graph of steps, each of which sends a request to another servable."""
