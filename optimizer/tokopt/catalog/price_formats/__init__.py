"""Readers of price files as others write them: one module a format, told apart by their columns.

Every format turns a table into drafts, the same columns for all, in batches; `checks.py` then turns drafts into prices
or into reasons why they are none, and `rules.py` compares the prices with each other. All of it works on columns.
"""
