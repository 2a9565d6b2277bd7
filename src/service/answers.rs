//! Answering the other edges of a cluster, which ask for what only this one knows.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Context, control,
    gather::{Part, Question},
    readers,
};
use crate::exchange::Problem;

/// Answers what other edges ask, for ever.
pub(crate) async fn answer(context: Arc<Context>) {
    loop {
        let asked = context.order.until_asked().await;
        // What a later version asks is not answered: whoever asks is told that this edge did not.
        if let Ok(question) = serde_json::from_value(asked.question)
            && let Ok(part) = part(&context, question)
        {
            let said = serde_json::to_value(part.cut()).expect("JSON");
            let _: Result<(), Value> = asked.answer.send(said);
        }
    }
}

fn part(context: &Context, question: Question) -> Result<Part, Problem> {
    match question {
        Question::Streams(query) => control::streams(context, &query),
        Question::EndStream(id) => Ok(control::end_stream(context, id)),
        Question::User(user) => control::streams_of(context, &user),
        Question::Topics(query) => control::topics(context, &query),
        Question::Topic(topic) => control::topic(context, &topic),
        Question::Readers(query) => readers::part(context, &query),
    }
}
