// A client of one shared object, made with the rtmp-client of npm: carries out what it is
// told on the command line, one step after each sync, and prints what it is told as lines
// of JSON.
//
//   node object.js rtmp://host:port/app NAME [SLOT=JSON | clear]...
'use strict';

const { NetConnection, SharedObject } = require('rtmp-client');

const [uri, name, ...steps] = process.argv.slice(2);
const say = (line) => console.log(JSON.stringify(line));

const nc = new NetConnection();
nc.onStatus = ({ code }) => {
	say({ net: code });
	if (code !== 'NetConnection.Connect.Success') {
		return;
	}
	const so = SharedObject.get(name, false, nc);
	so.onStatus = (status) => say({ status: status.code });
	so.onSync = (list) => {
		say({ version: so.version, list });
		const step = steps.shift();
		if (step === 'clear') {
			so.clear();
		}
		else if (step) {
			const [slot, value] = step.split(/=(.*)/s);
			so.setProperty(slot, JSON.parse(value));
		}
	};
};
nc.connect(uri);
