/** Every step there is. */
import './artifacts.js';
import './catalog.js';
import './commands.js';
import './controlPlane.js';
import './doors.js';
import './engines.js';
import './operations.js';
import './pools.js';
import './sessions.js';
import './streams.js';
import './tasks.js';
import './telemetry.js';
import './things.js';
