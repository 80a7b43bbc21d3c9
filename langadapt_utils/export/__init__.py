"""Export the adapted model as a GGUF file for llama.cpp and Ollama, and verify it."""
