"""Ways to fuse several models, one file each; `registry.py` lists them, `base.py` says what each can do.

| method | what is fitted | fused probabilities |
| --- | --- | --- |
| equal | nothing | mean of the models' probabilities |
| weights | one weight a model | weighted mean |
| temperature | a temperature a model (log-loss), then weights | weighted mean of softmax(log p / T) |
| log_weights | one weight a model, then one exponent (log-loss) | softmax(exponent x weighted sum of log p) |
| stacking | logistic regression on log p of all models and classes | its own |

Which is best is `selection.py`'s question. Before anything is fitted, a model that gives every class the same
probability is left out (weight 0), and models of equal scores count as one (they share its weight), so neither can
change a result.
"""
