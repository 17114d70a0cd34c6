"""Steering by the mean of contrast pairs: is a concept's direction a handle on the model's text?"""
