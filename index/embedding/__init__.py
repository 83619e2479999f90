"""Who reads and embeds photos, a block at a time, and the ledger of what became of them."""
