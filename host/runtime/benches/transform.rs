fn main() {} // "filter-rewrite"
