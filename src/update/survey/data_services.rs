//! Services beside the application whose data belongs to the transaction (`DATA_SERVICES`): a database is stopped,
//! copied and put back together with the application, whose version alone moves.

use std::time::Duration;

use futures_util::future::join_all;

use super::{DataService, of_service};
use crate::command::line;
use crate::engine::{Container, Healthcheck, Project};
use crate::update::plan::Until;
use crate::update::ports::{Options, Ports};
use crate::update::refusal::{Code, Refusal};

pub const SETTING: &str = "PROCESSGIT_UPDATER_DATA_SERVICES";
/// So long one connection may take.
const ASKED: Duration = Duration::from_secs(1);

/// Those that are named, but not what is moved, whose data is copied anyway; and why one cannot be found.
pub async fn find(
    ports: &Ports,
    options: &Options,
    project: &Project,
    containers: &[Container],
) -> (Vec<DataService>, Vec<Refusal>) {
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for name in options.data_services.iter().filter(|name| !project.moves(name)) {
        match the_container(name, project, containers) {
            Ok(container) if found.iter().any(|known: &DataService| known.container.id == container.id) => {}
            Ok(container) => {
                let port = open_port(ports, container).await;
                found.push(DataService { name: name.clone(), container: container.clone(), port });
            }
            Err(refusal) => refused.push(refusal),
        }
    }
    (found, refused)
}

/// The service's only container, or the container of this name. Pure.
fn the_container<'a>(
    name: &'a str,
    project: &'a Project,
    containers: &'a [Container],
) -> Result<&'a Container, Refusal> {
    let of_service: Vec<&Container> = of_service(containers, project, name).collect();
    match (&of_service[..], containers.iter().find(|c| c.name == name)) {
        ([one], _) => Ok(one),
        ([], Some(named)) => Ok(named),
        ([], None) => {
            let what = format!("{SETTING} names {name}, which has no container");
            Err(Refusal::new(Code::ServiceMissing, what).command(line(["docker", "compose", "up", "-d", name])))
        }
        (many, _) => {
            let names: Vec<&str> = many.iter().map(|c| c.name.as_str()).collect();
            let what = format!(
                "{SETTING} names service {name}, which has {} containers ({}): which of them has the data is not known",
                many.len(),
                names.join(", ")
            );
            Err(Refusal::new(Code::Replicas, what).command(line([
                "docker",
                "compose",
                "up",
                "-d",
                "--scale",
                &format!("{name}=1"),
                name,
            ])))
        }
    }
}

/// Where nothing better says that it is ready: the first of its image's ports that accepts a connection now.
async fn open_port(ports: &Ports, container: &Container) -> Option<u16> {
    if container.healthcheck != Healthcheck::None || !container.is_running() {
        return None;
    }
    let exposed = container.exposed_ports();
    let accept = join_all(exposed.iter().map(|port| ports.probe.accepts(container, *port, ASKED))).await;
    exposed.into_iter().zip(accept).find(|(_, accepts)| *accepts).map(|(port, _)| port)
}

/// How far it must be before what needs it is started: as far as it was when the job was planned.
pub fn until(service: &DataService) -> Until {
    match service.container.healthcheck {
        Healthcheck::Healthy | Healthcheck::Starting => Until::Healthy,
        _ => Until::Serving { port: service.port },
    }
}
