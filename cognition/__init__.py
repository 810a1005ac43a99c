"""What the loop knows from the literature: library, embeddings, retrieval."""
