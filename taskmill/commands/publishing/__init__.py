"""Commands that publish a benchmark, check it, rebuild it, compare it and let it grow."""
