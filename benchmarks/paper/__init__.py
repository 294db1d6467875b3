"""The paper's experiments on data that a person has: tables 2 to 5, figure 2, and what it leaves out."""
