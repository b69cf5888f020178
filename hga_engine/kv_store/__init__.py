"""K/V of one session in pages, across tiers, behind one interface."""
