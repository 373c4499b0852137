"""Measures PairLoss' speed, memory and accuracy, also against its peers; not part of the installed package."""
