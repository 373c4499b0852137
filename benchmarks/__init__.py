"""What measures PairLoss' speed, memory and accuracy against its peers; no part of the installed package."""
