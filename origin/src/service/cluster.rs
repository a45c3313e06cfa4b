//! For people: who belongs to the cluster, and changes of it.
//!
//! Changes are made by the leader. Another origin hands them on once, and says so in the
//! metadata, so that two that think of each other as the leader do not play ball.

use fabric::v1::cluster_client::ClusterClient;
use fabric::v1::cluster_server::{Cluster, ClusterServer};
use fabric::v1::{
    AddReply, AddRequest, ClusterStatus, RemoveReply, RemoveRequest, StatusRequest, TransferReply,
    TransferRequest,
};
use model::{NodeId, OriginId};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::raft::{Change, Changed, Desk, Refused};

/// Serves people.
#[derive(Clone)]
pub(crate) struct Service {
    desk: Desk,
}

const HANDED_ON: &str = "selvage-handed-on";

impl Service {
    pub(crate) fn server(desk: Desk) -> ClusterServer<Self> {
        ClusterServer::new(Self { desk })
    }

    /// Where a change that was refused here goes.
    fn leader(
        &self,
        refused: Refused,
        came: &MetadataMap,
    ) -> Result<ClusterClient<Channel>, Status> {
        match refused {
            Refused::Status(status) => Err(status),
            Refused::Leads(leader) if came.contains_key(HANDED_ON) => {
                Err(Status::unavailable(format!("node {leader} leads")))
            }
            Refused::Leads(leader) => {
                let address = self.desk.book().find(leader).ok_or_else(|| {
                    Status::unavailable(format!("node {leader} leads, its address is not known"))
                })?;
                let channel = self.desk.dial().channel(&address);
                let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
                Ok(ClusterClient::new(channel))
            }
        }
    }
}

fn handed_on<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert(HANDED_ON, MetadataValue::from_static("1"));
    request
}

/// What the desk answers fits the question.
fn another() -> Status {
    Status::internal("the answer is that of another change")
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<ClusterStatus>, Status> {
        let StatusRequest { digest } = request.into_inner();
        self.desk.status(digest).await.map(Response::new)
    }

    async fn add(&self, request: Request<AddRequest>) -> Result<Response<AddReply>, Status> {
        let (came, _, add) = request.into_parts();
        OriginId::new(&add.name)
            .map_err(|error| Status::invalid_argument(format!("AddRequest.name: {error}")))?;
        if add.address.len() > 512 || add.address.chars().any(char::is_control) {
            return Err(Status::invalid_argument("AddRequest.address is no address"));
        }
        if add.stamp == 0 {
            return Err(Status::invalid_argument("AddRequest.stamp is 0"));
        }
        match self.desk.change(Change::Add(add.clone())).await {
            Ok(Changed::Added(reply)) => Ok(Response::new(reply)),
            Ok(Changed::Removed(_) | Changed::Asked) => Err(another()),
            Err(refused) => self.leader(refused, &came)?.add(handed_on(add)).await,
        }
    }

    async fn remove(
        &self,
        request: Request<RemoveRequest>,
    ) -> Result<Response<RemoveReply>, Status> {
        let (came, _, remove) = request.into_parts();
        match self.desk.change(Change::Remove(remove.clone())).await {
            Ok(Changed::Removed(reply)) => Ok(Response::new(reply)),
            Ok(Changed::Added(_) | Changed::Asked) => Err(another()),
            Err(refused) => self.leader(refused, &came)?.remove(handed_on(remove)).await,
        }
    }

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<TransferReply>, Status> {
        let (came, _, transfer) = request.into_parts();
        let to = std::num::NonZeroU64::new(transfer.to).map(NodeId);
        match self.desk.change(Change::Transfer(to)).await {
            Ok(_) => Ok(Response::new(TransferReply {})),
            Err(refused) => {
                let mut leader = self.leader(refused, &came)?;
                leader.transfer(handed_on(transfer)).await
            }
        }
    }
}
