"""Turns the facts about an image into one clean record, and decides which records stay in the corpus."""
