//! A node: its actors at work.
