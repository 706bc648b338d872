//! The questions of the made-up tenant as messages of the contract.

use postern::proto::v1;

use crate::tenant::Question;

pub(crate) fn wire(question: &Question) -> v1::CheckRequest {
    v1::CheckRequest {
        subject: Some(v1::Subject {
            principal_id: question.principal.clone(),
            group_ids: question.groups.clone(),
            ..Default::default()
        }),
        action: Some(v1::Action {
            name: question.action.clone(),
            data_action: question.data_action,
            ..Default::default()
        }),
        resource: Some(v1::Resource { scope: question.scope.clone(), ..Default::default() }),
        ..Default::default()
    }
}
