"""Who may come in, and what they may do: certificates, tokens, and the scope that each method needs."""
