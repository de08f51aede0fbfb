"""What proposes candidates: every module of this package and every installed entry point `automc.strategies`."""
