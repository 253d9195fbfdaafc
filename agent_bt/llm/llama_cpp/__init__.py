"""Runs GGUF models on this machine: finds the model file, starts llama.cpp's server for a run, and sends requests."""
