"""How a model answers: likelihood ranking of options, generation, endpoints, several devices."""
