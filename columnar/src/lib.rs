//! Records as columns: Arrow and Parquet, and the schema that is inferred from JSON values.
