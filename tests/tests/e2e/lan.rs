//! Devices of one local network, with nothing set and no way out of it: they find each other, and are
//! quiet then.

use std::{path::Path, process::Command, time::Duration};

use cairnfs_tests::{Home, Peer, Running, eventually, need, poll, process, run};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(60);

/// Two machines and the cable between them: network namespaces, which go with the processes that
/// have them.
struct Lan {
    machines: [Running; 2],
}

impl Lan {
    fn new() -> Self {
        need::root("a network of its own");
        need::program("ip", "iproute2");
        need::program("nsenter", "util-linux");
        let machines = [(); 2]
            .map(|()| Running::start(Command::new("unshare").args(["--net", "sleep", "infinity"])));
        let own = namespace(std::process::id());
        for machine in &machines {
            eventually("it has a network", SOON, || namespace(machine.pid()) != own);
        }
        let lan = Self { machines };
        let other = lan.machines[1].pid().to_string();
        let cable = ["link", "add", "dev", "lan", "type", "veth", "peer", "name", "lan", "netns"];
        lan.ip(0, &[&cable[..], &[&other]].concat());
        for machine in [0, 1] {
            lan.ip(machine, &["link", "set", "dev", "lo", "up"]);
            lan.ip(machine, &["link", "set", "dev", "lan", "up"]);
        }
        lan
    }

    fn ip(&self, machine: usize, args: &[&str]) {
        run(self.on(machine, Command::new("ip").args(args)), SOON).succeeds();
    }

    /// Gives the machines the addresses of this network, and takes away those that they had.
    fn number(&self, network: u8) {
        for (machine, host) in [(0, 1), (1, 2)] {
            self.ip(machine, &["-4", "address", "flush", "dev", "lan"]);
            let address = format!("10.77.{network}.{host}/24");
            self.ip(machine, &["address", "add", &address, "dev", "lan"]);
        }
    }

    /// `command`, on that machine.
    fn on<'c>(&self, machine: usize, command: &'c mut Command) -> &'c mut Command {
        let net = format!("--net=/proc/{}/ns/net", self.machines[machine].pid());
        let mut there = Command::new("nsenter");
        there.arg(net).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => there.env(name, value),
                None => there.env_remove(name),
            };
        }
        *command = there;
        command
    }

    /// A daemon with the settings that it has by itself.
    fn daemon(&self, machine: usize, home: &Home) -> Running {
        let mut command = home.command(&["daemon"]);
        command.env_remove("CAIRNFS_LISTEN").env_remove("CAIRNFS_DISCOVERY");
        let daemon = Running::start(self.on(machine, &mut command));
        let socket = home.path().join("run/daemon.sock");
        eventually("it can be talked to", SOON, || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        daemon
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for machine in &self.machines {
            machine.signal(Signal::KILL);
        }
    }
}

fn namespace(pid: u32) -> Option<std::path::PathBuf> {
    Path::new(&format!("/proc/{pid}/ns/net")).read_link().ok()
}

/// Two devices that share a bucket, each on its machine, and their daemons.
struct Devices {
    // Field order is drop order: homes are unmounted while their daemons are there.
    peers: [Peer; 2],
    daemons: [Running; 2],
    lan: Lan,
}

impl Devices {
    fn new() -> Self {
        let lan = Lan::new();
        lan.number(1);
        let [home, other] = [Home::new(), Home::new()];
        let daemons = [lan.daemon(0, &home), lan.daemon(1, &other)];
        let one = Peer::on(home, &[]);
        let other = Peer::joining(other, &one, &[]);
        let devices = Self { peers: [one, other], daemons, lan };
        devices.are_connected();
        devices
    }

    fn are_connected(&self) {
        for peer in &self.peers {
            eventually("the devices are connected", SOON, || {
                let peers = peer.home().cairnfs(&["peers", "--json"]).succeeds().json();
                peers["peers"][0]["connected"] == true
            });
        }
    }

    /// Ends both daemons.
    fn stop(&mut self) {
        for (peer, daemon) in self.peers.iter().zip(&mut self.daemons) {
            peer.home().cairnfs(&["stop"]).succeeds();
            eventually("the daemon has ended", SOON, || daemon.ended());
        }
    }
}

#[test]
fn devices_of_a_local_network_find_each_other_without_being_told_where() {
    let mut devices = Devices::new();
    devices.stop();
    // Where each was it is not any more, and no word of that came from the other.
    devices.lan.number(2);
    for (machine, peer) in devices.peers.iter().enumerate() {
        devices.daemons[machine] = devices.lan.daemon(machine, peer.home());
        peer.mount();
    }
    devices.are_connected();
    devices.peers[0].write("f", "from the one");
    eventually("it is on the other", SOON, || {
        std::fs::read(devices.peers[1].path("f")).is_ok_and(|read| read == b"from the one")
    });
}

#[test]
fn connected_devices_do_not_look_for_each_other() {
    let devices = Devices::new();
    let wakes = || -> u64 {
        let pids = devices.peers.iter().map(Peer::pid);
        pids.map(|pid| process::rests(pid, "mDNS_daemon").expect("it announces itself")).sum()
    };
    // What has begun comes to an end first: an announcement is said twice, for one.
    let mut before = wakes();
    eventually("three seconds pass without a wake-up", SOON, || {
        poll::let_pass(Duration::from_secs(3));
        let last = std::mem::replace(&mut before, wakes());
        last == before
    });
    poll::let_pass(Duration::from_secs(45));
    let woken = wakes() - before;
    assert!(woken <= 2, "woken {woken} times in 45 seconds");
}
