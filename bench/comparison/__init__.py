"""Convex heads beside SFT, DPO, ORPO, SimPO and reward models: same pairs, same model, same judge; what each costs."""
