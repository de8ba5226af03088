"""The literature's other ways to encode, attend and decode, as parts of the one Transformer frame.

``variant_config`` names them, ``variant_model`` puts them together. All keep the contract of the
graphs, so that they are exported, verified, served and looked into like any other model.
"""
