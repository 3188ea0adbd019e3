//! The sticky schema: its words are `model`'s, as the broker keeps it. Here it is shown what it becomes by what is observed.

pub use model::schema::{Field, FieldType, Schema, Shape, is_exact};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Observer;
    use model::schema::FIELDS_MAX;

    fn schema(values: &[&str]) -> Schema {
        let mut observer = Observer::new(Schema::default());
        for value in values {
            observer.observe(None, Some(value.as_bytes()));
        }
        observer.into_schema()
    }

    fn types(schema: &Schema) -> Vec<(&str, FieldType)> {
        let fields = schema.fields.iter();
        fields.map(|field| (&*field.path, field.kind)).collect()
    }

    #[test]
    fn fields_stand_in_the_order_of_their_first_appearance() {
        let schema = schema(&[
            r#"{"z":1,"a":{"y":true}}"#,
            r#"{"b":[1],"z":2,"a":{"x":"t"},"n":null}"#,
        ]);
        let expected = [
            ("z", FieldType::Int),
            ("a.y", FieldType::Bool),
            ("b", FieldType::Json),
            ("a.x", FieldType::Text),
        ];
        assert_eq!(types(&schema), expected);
    }

    #[test]
    fn types_widen_and_never_narrow() {
        let kind = |values: &[&str]| {
            let values: Vec<_> = values.iter().map(|v| format!("{{\"a\":{v}}}")).collect();
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            types(&schema(&values))[0].1
        };
        assert_eq!(kind(&["1", "2.5"]), FieldType::Float);
        assert_eq!(kind(&["2.5", "1", "null"]), FieldType::Float);
        assert_eq!(kind(&["1", "\"x\""]), FieldType::Text);
        assert_eq!(kind(&["true", "1"]), FieldType::Text);
        assert_eq!(kind(&["[1]", "[2]"]), FieldType::Json);
        assert_eq!(kind(&["[1]", "2"]), FieldType::Text);
        assert_eq!(kind(&["9007199254740993"]), FieldType::Int);
        assert_eq!(kind(&["9007199254740993", "0.5"]), FieldType::Text);
        assert_eq!(kind(&["0.5", "9007199254740993"]), FieldType::Text);
        assert_eq!(kind(&["18446744073709551615"]), FieldType::Text);
        assert_eq!(kind(&["1e400"]), FieldType::Text);
        assert_eq!(kind(&["-0"]), FieldType::Float);
    }

    #[test]
    fn a_schema_can_be_told_as_it_was() {
        let mut kept = Schema::default();
        assert!(kept.merge(&schema(&[r#"{"a":1}"#])));
        assert!(kept.merge(&schema(&[r#"{"a":1.5,"b":1}"#])));
        assert!(!kept.merge(&schema(&[r#"{"b":7}"#])));
        assert!(kept.merge(&schema(&[r#"{"a":"x"}"#])));
        assert_eq!(kept.version, 3);
        assert_eq!(types(&kept.at(0).expect("0")), []);
        assert_eq!(types(&kept.at(1).expect("1")), [("a", FieldType::Int)]);
        let two = kept.at(2).expect("2");
        assert_eq!(
            types(&two),
            [("a", FieldType::Float), ("b", FieldType::Int)]
        );
        let three = kept.at(3).expect("3");
        assert_eq!(
            types(&three),
            [("a", FieldType::Text), ("b", FieldType::Int)]
        );
        assert_eq!(kept.at(4), None);
        let text = serde_json::to_string(&kept).expect("JSON");
        let back: Schema = serde_json::from_str(&text).expect("a schema");
        assert_eq!(back, kept);
    }

    #[test]
    fn bytes_that_are_no_text_are_noticed_once() {
        let mut observer = Observer::new(Schema::default());
        observer.observe(Some(b"k"), Some(b"x"));
        let schema = observer.schema();
        assert_eq!((schema.keys(), schema.values()), (Shape::Text, Shape::Text));
        observer.observe(Some(b"\xff"), None);
        let schema = observer.into_schema();
        assert_eq!(
            (schema.keys(), schema.values()),
            (Shape::Bytes, Shape::Text)
        );
        assert_eq!(schema.version, 1);
    }

    #[test]
    fn fields_are_bounded() {
        let mut observer = Observer::new(Schema::default());
        for number in 0..FIELDS_MAX + 10 {
            observer.observe(None, Some(format!("{{\"f{number}\":1}}").as_bytes()));
        }
        let schema = observer.into_schema();
        assert_eq!(schema.fields.len(), FIELDS_MAX);
        assert!(schema.truncated);
    }
}
