"""Files that exports are made with; `modeling_cvxrelu_reward.py` is copied next to exported weights."""
