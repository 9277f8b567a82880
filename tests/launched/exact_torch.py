"""torch whose elementary functions are exact from their first call on: see parallel/vector_math.h."""
import torch

for dtype in (torch.float32, torch.float64):
    half = torch.full((1,), 0.5, dtype=dtype)
    for function in (torch.erf, torch.exp, torch.log, torch.sqrt, torch.tanh):
        function(half)
