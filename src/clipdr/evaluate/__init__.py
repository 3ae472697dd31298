"""Zero-shot evaluation: `clipdr.evaluate.suite.evaluate_suite` scores a model on all tasks of a suite.

Nothing is imported here, so that the command can bound the thread pools before numpy and torch are loaded.
"""
