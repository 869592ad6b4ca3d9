"""Builds a network of hosts with shaped links in Mininet, checks that two of them reach each other, and takes it down.

Says how long each took, in seconds, as one JSON document on the last line of its output.
"""

import json
import sys
import time

from mininet.link import TCLink
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge

setLogLevel("error")
hosts = int(sys.argv[1])
megabits = float(sys.argv[2])
latency = None if sys.argv[3] == "0s" else sys.argv[3]

began = time.monotonic()
net = Mininet(switch=LinuxBridge, controller=None, link=TCLink, build=False, ipBase="10.0.0.0/16")
switch = net.addSwitch("s1")
for i in range(hosts):
    net.addLink(net.addHost("h%d" % i), switch, bw=megabits, delay=latency)
net.build()
net.start()
built = time.monotonic()
lost = net.ping([net.hosts[0], net.hosts[-1]], timeout="5")
checked = time.monotonic()
net.stop()
print(json.dumps({"build": built - began, "destroy": time.monotonic() - checked, "works": lost == 0}))
