"""Exports of models, and the server that scores raw rows with them. Imports no torch.

    inputs      encoded columns → the tensors that a graph takes
    signature   signature.json: what a client sends
    exported    an opened export: raw rows → probabilities
"""
