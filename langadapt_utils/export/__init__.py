"""Take the adapted model along: one GGUF file for llama.cpp and Ollama, proved in llama.cpp."""
