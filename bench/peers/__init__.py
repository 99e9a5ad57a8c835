"""The same job in other frameworks, each as its own documentation would write it, each in an environment of its own."""
