"""Language models: providers, and the layers around them for cache, rate limits, prices and budget."""
