"""The paper's comparisons at the scale of one machine: tables of trained networks, and studies."""
