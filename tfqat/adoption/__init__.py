"""Models that another toolkit trained quantized, adopted: its ranges on our placement, and what became of them."""
