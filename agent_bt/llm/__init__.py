"""Models behind one face: the OpenAI-compatible provider, the stand-in, the scripted model."""
